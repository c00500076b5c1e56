// The order of origins without a round trip: buttons move rows here, and rows can be dragged. The Media Library stays first.

export function start(list) {
  const rows = () => [...list.querySelectorAll("li[data-id]")];
  const form = list.closest("form");
  const adder = form.querySelector("[name=add]");

  function update() {
    const all = rows();
    all.forEach((row, i) => {
      row.draggable = true;
      row.querySelector('[value^="up "]').disabled = i === 0;
      row.querySelector('[value^="down "]').disabled = i === all.length - 1;
    });
  }

  function move(row, by) {
    const all = rows();
    const to = all.indexOf(row) + by;
    if (to < 0 || to >= all.length) return;
    if (by < 0) all[to].before(row);
    else all[to].after(row);
    update();
  }

  list.addEventListener("click", (event) => {
    const button = event.target.closest("button[name=do]");
    if (!button) return;
    event.preventDefault();
    const row = button.closest("li");
    const verb = button.value.split(" ")[0];
    if (verb === "remove") {
      const near = row.nextElementSibling ?? row.previousElementSibling;
      if (adder?.tagName === "SELECT") {
        const option = new Option(row.dataset.id, row.dataset.id);
        adder.append(option);
      }
      row.remove();
      update();
      (near?.querySelector('[value^="remove "]') ?? adder)?.focus();
      return;
    }
    move(row, verb === "up" ? -1 : 1);
    const again = button.disabled ? row.querySelector(verb === "up" ? '[value^="down "]' : '[value^="up "]') : button;
    again.focus();
  });

  let dragged;
  const clear = () => rows().forEach((row) => row.classList.remove("over", "dragging"));
  list.addEventListener("dragstart", (event) => {
    dragged = event.target.closest("li[data-id]");
    dragged?.classList.add("dragging");
    if (dragged) event.dataTransfer.effectAllowed = "move";
  });
  list.addEventListener("dragover", (event) => {
    const over = event.target.closest("li");
    if (!dragged || !over) return;
    event.preventDefault();
    rows().forEach((row) => row.classList.toggle("over", row === over && row !== dragged));
  });
  list.addEventListener("drop", (event) => {
    const over = event.target.closest("li");
    event.preventDefault();
    if (dragged && over && over !== dragged) {
      if (over.classList.contains("locked")) over.after(dragged);
      else if (rows().indexOf(over) > rows().indexOf(dragged)) over.after(dragged);
      else over.before(dragged);
    }
    clear();
    update();
  });
  list.addEventListener("dragend", () => {
    clear();
    dragged = undefined;
  });
  update();
}
