/* A formula within a line that is wider than the text moves to a scrolling line of its own. */
function makeRoom() {
  const formulas = [...document.querySelectorAll("p > span.math, li > span.math")];
  formulas.forEach((formula) => formula.classList.remove("wide"));
  const wide = formulas.filter(
    (formula) => formula.getBoundingClientRect().width > formula.parentElement.clientWidth,
  );
  wide.forEach((formula) => formula.classList.add("wide"));
}

window.addEventListener("load", () => {
  window.MathJax?.startup?.promise.then(makeRoom);
  window.addEventListener("resize", makeRoom);
});
