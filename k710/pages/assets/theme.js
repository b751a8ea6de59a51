// The reader's choice of theme, before anything is drawn. Pages that are opened as files may have no storage.
(() => {
  "use strict";
  let theme = null;
  try {
    theme = localStorage.getItem("k710-theme");
  } catch {}
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
