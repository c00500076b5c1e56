// What every page has: buttons that copy, confirmations as dialogs, the preview of an identifier; and the islands that a page holds.

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) { // Browsers have one over HTTPS and on the same machine.
    button.remove();
    continue;
  }
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  });
}

// A link to a page that asks before something goes shows its form in a dialog, one however often it is clicked. What is no such form is shown as the page that it is.
for (const link of document.querySelectorAll("[data-dialog]")) {
  let asking = false;
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    if (asking) return;
    asking = true;
    const reply = await fetch(link.href).catch(() => null);
    const page = new DOMParser().parseFromString(reply ? await reply.text() : "", "text/html");
    const form = page.querySelector("main form.card:not(.sign-in)");
    asking = false;
    if (!reply?.ok || !form) {
      location.assign(link.href);
      return;
    }
    const dialog = document.createElement("dialog");
    const title = document.createElement("h2");
    title.textContent = page.querySelector("h1").textContent;
    title.id = "dialog-title";
    dialog.setAttribute("aria-labelledby", title.id);
    dialog.append(title, form);
    form.querySelector("a.button").addEventListener("click", (back) => {
      back.preventDefault();
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      link.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

for (const input of document.querySelectorAll("[data-preview]")) {
  const shown = document.getElementById(input.dataset.preview).querySelector("b");
  const show = () => (shown.textContent = input.value.trim() || "identifier");
  input.addEventListener("input", show);
}

for (const menu of document.querySelectorAll("details.switch")) {
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

const here = new URL(".", import.meta.url);
for (const name of new Set(Array.from(document.querySelectorAll("[data-island]"), (e) => e.dataset.island))) {
  import(new URL(name + ".js", here)).then((island) => {
    for (const element of document.querySelectorAll(`[data-island="${name}"]`)) island.start(element);
  });
}
