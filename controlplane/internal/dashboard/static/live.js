// A part of a page that is told again whenever it changes. Only what differs is exchanged, so that focus and selection stay.

// again is when a stream is asked for anew that a browser has given up, as it does when the answer is an error.
const again = 15000;

export function start(element) {
  const lost = document.createElement("p");
  lost.className = "notice warn";
  lost.setAttribute("role", "status");
  lost.hidden = true;
  element.before(lost);
  let events;

  function listen() {
    events = new EventSource(element.dataset.events);
    events.addEventListener("message", (event) => {
      lost.hidden = true;
      const next = new DOMParser().parseFromString(`<div>${JSON.parse(event.data)}</div>`, "text/html").body.firstChild;
      merge(element, next);
    });
    events.addEventListener("error", () => {
      if (lost.hidden) {
        lost.hidden = false;
        lost.textContent = `Not live since ${new Date().toLocaleTimeString()}: the control plane does not answer, or you are signed out. Load the page again to see which.`;
      }
      if (events.readyState === EventSource.CLOSED) setTimeout(listen, again);
    });
  }
  listen();
  addEventListener("pagehide", () => events.close());
}

function merge(old, next) {
  const a = [...old.childNodes];
  const b = [...next.childNodes];
  b.forEach((node, i) => {
    const was = a[i];
    if (!was) old.append(node);
    else if (was.isEqualNode(node)) return;
    else if (was.nodeType === 1 && node.nodeType === 1 && was.tagName === node.tagName && was.childElementCount) {
      for (const { name, value } of node.attributes) was.setAttribute(name, value);
      merge(was, node);
    } else {
      was.replaceWith(node);
      if (node.nodeType === 1) node.classList.add("flash");
      else node.parentElement?.classList.add("flash");
    }
  });
  a.slice(b.length).forEach((node) => node.remove());
}
