// What HTML can't do by itself. Every page works without it.
"use strict";

// Nobody looks at a hidden tab, so it asks nothing.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden) event.preventDefault();
});

// A page that can't refresh itself says so, rather than look as if nothing happened.
const setStale = (isStale) => {
  document.getElementById("stale")?.toggleAttribute("hidden", !isStale);
};
document.addEventListener("htmx:error", () => setStale(true));
document.addEventListener("htmx:after:request", () => setStale(false));

// One box for all the boxes of a table, and a count of what is chosen.
const boxes = (form) => [...form.querySelectorAll("input[name=job]")];
const tellChosen = (form) => {
  const all = boxes(form);
  const chosen = all.filter((box) => box.checked).length;
  const every = form.querySelector("input[data-every]");
  if (every) {
    every.checked = chosen > 0 && chosen === all.length;
    every.indeterminate = chosen > 0 && chosen < all.length;
  }
  for (const button of form.querySelectorAll("button[data-chosen]")) button.disabled = !chosen;
  const told = form.querySelector("[data-number]");
  if (told) told.textContent = chosen ? `${chosen} chosen` : "";
};
for (const form of document.querySelectorAll("form[data-choose]")) {
  form.querySelector("[data-every-cell]")?.removeAttribute("hidden");
  form.addEventListener("change", (event) => {
    if (event.target.matches("input[data-every]")) {
      for (const box of boxes(form)) box.checked = event.target.checked;
    }
    tellChosen(form);
  });
  window.addEventListener("pageshow", () => tellChosen(form));
  tellChosen(form);
}

// Who comes back to a page that the browser has kept means another sample, not the fate of the last one.
window.addEventListener("pageshow", (event) => {
  if (event.persisted && document.getElementById("sample-run")) location.reload();
});

// "/" goes to the page's search, as elsewhere on the web.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const search = document.querySelector("input[type=search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
});
