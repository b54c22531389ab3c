// Before the first paint: the theme that somebody chose here, in place of the system's.
{
  const chosen = localStorage.getItem("dkv-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
