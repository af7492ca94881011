"use strict";
// Comfort only: every page works without this. A form is sent once, however often it is tapped;
// a page that comes back from the browser's memory can be used again.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button");
  if (button.disabled) event.preventDefault();
  setTimeout(() => { button.disabled = true; }, 0);
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
