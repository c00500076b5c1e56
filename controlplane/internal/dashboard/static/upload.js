// Uploads with progress, of files and of folders that are dropped. Three files go at once.

const atOnce = 3;

export function start(form) {
  const input = form.querySelector("input[type=file]");
  const list = form.querySelector(".progress");
  const path = form.dataset.path;
  const waiting = [];
  let running = 0;
  let failed = false;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    add([...input.files].map((file) => [file, path ?? form.dataset.folder + file.name]));
  });

  if (!path) {
    for (const name of ["dragenter", "dragover"]) {
      form.addEventListener(name, (event) => {
        event.preventDefault();
        form.classList.add("over");
      });
    }
    form.addEventListener("dragleave", () => form.classList.remove("over"));
    form.addEventListener("drop", async (event) => {
      event.preventDefault();
      form.classList.remove("over");
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
      const found = [];
      for (const entry of entries) await walk(entry, form.dataset.folder, found);
      add(found);
    });
    form.classList.add("ready"); // From now on it says that files can be dropped.
  }

  function add(files) {
    for (const [file, to] of files) {
      const row = document.createElement("li");
      const name = document.createElement("span");
      name.textContent = to;
      const bar = document.createElement("progress");
      bar.max = file.size || 1;
      bar.value = 0;
      bar.setAttribute("aria-label", to);
      const outcome = document.createElement("span");
      row.append(name, bar, outcome);
      list.append(row);
      waiting.push({ file, to, bar, outcome });
    }
    next();
  }

  function next() {
    while (running < atOnce && waiting.length) send(waiting.shift());
    if (!running && !waiting.length && !failed && list.childElementCount) location.reload();
  }

  function send({ file, to, bar, outcome }) {
    running++;
    const request = new XMLHttpRequest();
    request.open("PUT", form.dataset.to + "?path=" + encodeURIComponent(to));
    request.upload.addEventListener("progress", (event) => (bar.value = event.loaded));
    request.addEventListener("loadend", () => {
      running--;
      bar.value = bar.max;
      // What answers in words alone has stored the file or says why not: a page is the one for signing in.
      const page = request.status && !request.getResponseHeader("Content-Type")?.startsWith("text/plain");
      const stored = request.status === 200 && !page;
      outcome.textContent = page ? "Not stored: you are signed out." : request.responseText || "The connection was lost.";
      if (!stored || request.responseText.includes(":")) failed = true;
      if (!stored) outcome.classList.add("error");
      next();
    });
    request.send(file);
  }
}

async function walk(entry, folder, found) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    found.push([file, folder + file.name]);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const one of some) await walk(one, folder + entry.name + "/", found);
  }
}
