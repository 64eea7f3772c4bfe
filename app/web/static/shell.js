// What Gradio's tabs lack where no mouse is used.

// Tab opens a list's choices again that its leaving had closed, and leads into those first
window.addEventListener("keydown", (event) => {
  if (event.key !== "Tab" || !event.target.matches?.("[role=combobox]")) return;
  event.stopPropagation();
  document.getElementById(event.target.getAttribute("aria-controls"))?.setAttribute("tabindex", "-1");
}, true);
