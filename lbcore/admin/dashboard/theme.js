// Before anything is painted: light or dark, if a person has chosen. Not a module, so that it runs
// first.
(() => {
  const chosen = localStorage.getItem("lbcore-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
