// Tables and formulas that are wider than the page scroll by themselves: the Tab key reaches those that do.
const wide = ".md-typeset__scrollwrap, .md-typeset math[display='block']";

function reachable() {
  for (const part of document.querySelectorAll(wide)) {
    if (part.scrollWidth > part.clientWidth) part.setAttribute("tabindex", "0");
    else part.removeAttribute("tabindex");
  }
}

new ResizeObserver(reachable).observe(document.body);
new MutationObserver(reachable).observe(document.body, { childList: true, subtree: true });
