// Applies the remembered theme before the first paint, so that a reload in the dark does not flash
// white. A classic script on purpose: modules run only after the page has been parsed.
try {
  const theme = localStorage.getItem('tidings-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be switched off; the system's preference then decides.
}
