// Runs before the first paint, so that nobody sees the other theme flash by. Kept apart from the modules for that reason.
(function () {
  var chosen = null;
  try {
    chosen = localStorage.getItem('xiaozhi.theme');
  } catch {
    chosen = null; // storage is forbidden in this browser: go by the system
  }
  var dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
