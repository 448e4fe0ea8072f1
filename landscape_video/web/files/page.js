// The language of the page: the visitor's choice, else that of the browser. The server reads the choice from the cookie.
(() => {
  const name = "landscape_video_language";
  const chosen = (document.cookie.match(new RegExp(`(?:^|; )${name}=(en|zh)`)) || [])[1];
  let current = chosen || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

  // Gradio exports the function behind its own language menu from a file whose name has a hash.
  async function apply(language) {
    const core = () => performance.getEntriesByType("resource").find((entry) => /\/core-[^/]*\.js$/.test(entry.name));
    while (!core() || !document.getElementById("generate")) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    (await import(core().name)).changeLocale(language === "zh" ? "zh-CN" : "en");
    document.documentElement.lang = language;
    current = language;
  }

  window.landscapeVideo = {
    switchLanguage() {
      const language = current === "zh" ? "en" : "zh";
      document.cookie = `${name}=${language}; path=/; max-age=31536000; samesite=lax`;
      apply(language);
    },
  };
  document.documentElement.lang = current;
  if (chosen) apply(chosen);
})();
