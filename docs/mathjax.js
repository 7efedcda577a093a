// Formulas: of the notebooks between dollars, of the other pages as arithmatex marks them. Code is left alone.
window.MathJax = {
  options: { ignoreHtmlClass: "clipboard-copy-txt" },
  tex: {
    inlineMath: [["$", "$"], ["\\(", "\\)"]],
    displayMath: [["$$", "$$"], ["\\[", "\\]"]],
    processEscapes: true,
  },
};
