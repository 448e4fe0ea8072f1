// Draws the state of `StudyLogic` on the page, and passes user input to it.
(() => {
  const study = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const storageKey = `landscape-video-study-${study.study}`;
  const videos = [$("left"), $("right")];
  let canStore = true;
  let language = /^zh/i.test(navigator.language) ? "zh" : "en";
  let marked = 0, since = 0, playing = true, state;

  const read = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      canStore = false;
      return null;
    }
  };
  const write = (name, text) => {
    try {
      localStorage.setItem(name, text);
    } catch {
      canStore = false;
    }
    $("no-storage").hidden = canStore;
  };
  const say = (word, values = {}) =>
    word.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
  const words = () => study.words[language];
  const keep = (next) => {
    state = next;
    write(storageKey, JSON.stringify(state));
  };
  const show = (id) => {
    for (const name of ["intro", "task", "end"]) $(name).hidden = name !== id;
    $("saved").textContent = "";
  };
  const seen = new Set();
  const bothSeen = () => seen.size === 2 || Object.keys(StudyLogic.choices(state)).length > 0;

  function drawWords() {
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    document.title = words().title;
    for (const element of document.querySelectorAll("[data-word]")) element.textContent = words()[element.dataset.word];
    $("language").textContent = words().switch;
    $("language").lang = language === "zh" ? "en" : "zh-Hans";
    $("left").setAttribute("aria-label", words().left_clip);
    $("right").setAttribute("aria-label", words().right_clip);
    $("keys").textContent = words().keys;
    const pairs = study.sessions[state.rater - 1].length;
    $("paragraphs").replaceChildren(
      ...words().intro.map((text) => {
        const paragraph = document.createElement("p");
        paragraph.textContent = say(text, { pairs, minutes: Math.max(1, Math.round(pairs * 0.6)) });
        return paragraph;
      }),
    );
    $("rater").textContent = say(words().rater, state);
    $("start").textContent = state.answers.length ? words().resume : words().start;
    drawQuestions();
    drawPlay();
  }

  function drawQuestions() {
    $("questions").replaceChildren(
      ...study.questions.map((name, index) => {
        const fieldset = document.createElement("fieldset"), line = document.createElement("div");
        const legend = document.createElement("legend"), text = document.createElement("span");
        const sides = document.createElement("div");
        legend.textContent = text.textContent = words().questions[name];
        text.className = "question";
        text.setAttribute("aria-hidden", "true"); // the legend says it
        line.className = "line";
        sides.className = "sides";
        for (const side of ["left", "right"]) {
          const label = document.createElement("label"), input = document.createElement("input");
          const word = document.createElement("span");
          Object.assign(input, { type: "radio", name, value: side });
          input.addEventListener("change", () => choose(index, side));
          input.addEventListener("focus", () => mark(index));
          word.textContent = words()[side];
          label.append(input, word);
          sides.append(label);
        }
        line.append(text, sides);
        fieldset.append(legend, line);
        return fieldset;
      }),
    );
    drawAnswers();
  }

  function drawAnswers() {
    const now = StudyLogic.current(study, state);
    if (!now) return;
    const open = StudyLogic.open(study, state).length, ready = bothSeen();
    for (const input of $("questions").elements) {
      if (input.type !== "radio") continue;
      input.checked = now.choices[input.name] === input.value;
      input.disabled = !ready;
    }
    [...$("questions").children].forEach((fieldset, index) => fieldset.classList.toggle("marked", ready && index === marked));
    $("status").textContent = !ready ? words().watch : open ? say(words().answer, { open, total: study.questions.length }) : words().ready;
    $("next").textContent = state.position + 1 < now.total ? words().next : words().finish;
    $("next").disabled = open > 0;
    $("back").disabled = state.position === 0;
    $("stop").hidden = state.answers.length === 0;
    $("progress").textContent = say(words().progress, { now: state.position + 1, total: now.total });
    $("bar").value = state.position / now.total;
  }

  function drawPlay() {
    $("play").textContent = playing ? words().pause : words().play;
  }

  function openPair() {
    const now = StudyLogic.current(study, state);
    seen.clear();
    marked = 0;
    since = performance.now();
    if (!now) {
      videos.forEach((video) => video.pause());
      show("end");
      $("contact").hidden = !study.contact;
      $("contact").textContent = study.contact;
      $("end").querySelector("h1").focus();
      return;
    }
    show("task");
    $("prompt-text").textContent = now.prompt;
    $("prompt-text").lang = /[\u3400-\u9fff]/.test(now.prompt) ? "zh-Hans" : "en";
    videos[0].src = `clips/${now.left}.mp4`;
    videos[1].src = `clips/${now.right}.mp4`;
    drawAnswers();
    startTogether();
    preload();
    $("progress").focus();
  }

  // Start both clips together, once both can play.
  function startTogether() {
    for (const video of videos) {
      video.pause();
      if (video.readyState) video.currentTime = 0;
    }
    const begin = () => {
      if (playing && videos.every((video) => video.readyState >= 3)) videos.forEach((video) => video.play().catch(() => {}));
    };
    videos.forEach((video) => (video.oncanplay = begin));
    begin();
  }

  let ahead = [];
  function preload() {
    const later = StudyLogic.current(study, { ...state, position: state.position + 1 });
    ahead = (later ? [later.left, later.right] : []).map((token) => {
      const video = document.createElement("video");
      Object.assign(video, { preload: "auto", muted: true, src: `clips/${token}.mp4` });
      return video;
    });
  }

  function togglePlay() {
    playing = !playing;
    drawPlay();
    videos.forEach((video) => (playing ? video.play().catch(() => {}) : video.pause()));
  }

  function again() {
    playing = true;
    drawPlay();
    startTogether();
  }

  function mark(index) {
    marked = Math.min(Math.max(index, 0), study.questions.length - 1);
    [...$("questions").children].forEach((fieldset, i) => fieldset.classList.toggle("marked", bothSeen() && i === marked));
  }

  function choose(index, side) {
    if (!bothSeen()) return;
    keep(StudyLogic.choose(study, state, study.questions[index], side));
    mark(index + 1);
    drawAnswers();
  }

  function goOn() {
    if ($("next").disabled) return;
    keep(StudyLogic.next(study, state, (performance.now() - since) / 1000));
    openPair();
  }

  function goBack() {
    keep(StudyLogic.back(state));
    openPair();
  }

  function save() {
    const file = StudyLogic.answersFile(study, state, language);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([file.text], { type: "application/json" }));
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    $("saved").textContent = say(words().saved, file);
  }

  for (const video of videos) {
    video.addEventListener("timeupdate", () => {
      const { played, duration } = video;
      if (!seen.has(video) && played.length && played.end(played.length - 1) >= duration - 0.2) {
        seen.add(video);
        if (bothSeen()) drawAnswers();
      }
    });
    video.addEventListener("error", () => {
      $("problem").textContent = words().broken;
      $("problem").hidden = false;
    });
    video.addEventListener("loadeddata", () => ($("problem").hidden = true));
  }
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    write(`${storageKey}-language`, language);
    drawWords();
  });
  $("start").addEventListener("click", openPair);
  $("next").addEventListener("click", goOn);
  $("back").addEventListener("click", goBack);
  $("end-back").addEventListener("click", goBack);
  $("play").addEventListener("click", togglePlay);
  $("again").addEventListener("click", again);
  $("stop").addEventListener("click", save);
  $("save").addEventListener("click", save);
  $("questions").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if ($("task").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target.closest("button") !== null;
    const actions = {
      ArrowLeft: () => choose(marked, "left"),
      ArrowRight: () => choose(marked, "right"),
      ArrowUp: () => mark(marked - 1),
      ArrowDown: () => mark(marked + 1),
      Enter: onButton ? null : goOn,
      " ": onButton || event.target.type === "radio" ? null : togglePlay,
      r: again,
      R: again,
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });

  const asked = new URLSearchParams(location.search).get("rater");
  const wanted = asked === null ? null : Number(asked);
  playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  language = read(`${storageKey}-language`) || language;
  if (!(language in study.words)) language = "en";
  document.body.style.setProperty("--aspect", study.size[0] / study.size[1]);
  state = StudyLogic.start(study, read(storageKey), wanted, () => crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32);
  if (state === null) {
    $("problem").textContent = say(words().no_session, { rater: asked, total: study.sessions.length });
    $("problem").hidden = false;
    $("language").hidden = true;
    return;
  }
  drawWords();
  show("intro");
  $("no-storage").hidden = canStore;
})();
