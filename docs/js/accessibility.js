// The search window of the theme is a dialog without a name.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");

// A box that scrolls sideways takes the keyboard's focus, so that arrow keys scroll it.
function makeScrollable() {
  for (const box of document.querySelectorAll(".formula, .md-typeset__scrollwrap, .highlight pre > code")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", box.matches(".formula") ? "formula" : box.matches("code") ? "code" : "table");
    }
  }
}
addEventListener("load", makeScrollable);
addEventListener("resize", makeScrollable);
