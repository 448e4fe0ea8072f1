// The language of the page: the visitor's choice, else that of the browser. Gradio reads `navigator.language` when it
// starts, so the choice must be in place before; the server reads it from the cookie.
(() => {
  const name = "landscape_video_language";
  const chosen = (document.cookie.match(new RegExp(`(?:^|; )${name}=(en|zh)`)) || [])[1];
  if (chosen) {
    Object.defineProperty(navigator, "language", { get: () => chosen });
    Object.defineProperty(navigator, "languages", { get: () => [chosen] });
  }
  const current = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  document.documentElement.lang = current;
  window.landscapeVideo = {
    switchLanguage() {
      document.cookie = `${name}=${current === "zh" ? "en" : "zh"}; path=/; max-age=31536000; samesite=lax`;
      window.location.reload();
    },
  };
})();
