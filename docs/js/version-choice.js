// A choice of the versions of the site, in its header. The list `siteVersions` is beside the folders of the versions.
const { base, version } = document.currentScript.dataset;
if (typeof siteVersions !== "undefined" && siteVersions.length > 1) {
  const choice = document.createElement("select");
  choice.className = "site-version";
  choice.setAttribute("aria-label", "Version of the documentation");
  for (const name of siteVersions) {
    choice.add(new Option(name, name, name === version, name === version));
  }
  choice.addEventListener("change", () => {
    location.href = new URL(`${base}/../${choice.value}/index.html`, location.href).href;
  });
  document.querySelector(".md-header__title").after(choice);
}
