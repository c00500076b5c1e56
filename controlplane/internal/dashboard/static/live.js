// A part of a page that is told again whenever it changes. Only what differs is exchanged, so that focus and selection stay.

export function start(element) {
  const events = new EventSource(element.dataset.events);
  events.addEventListener("message", (event) => {
    const next = new DOMParser().parseFromString(`<div>${JSON.parse(event.data)}</div>`, "text/html").body.firstChild;
    merge(element, next);
  });
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
