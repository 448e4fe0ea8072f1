"use strict";
// The logic of a session, without page elements, clock or storage. `study` is the data of the page.
const StudyLogic = {
  // The state to continue with: the stored one if it belongs to this study and session, else a new one.
  // `wanted` is the number of the session that the address asks for (from 1), or null for any.
  start(study, stored, wanted, random) {
    const total = study.sessions.length;
    if (wanted !== null && !(Number.isInteger(wanted) && wanted >= 1 && wanted <= total)) return null;
    let state = null;
    try {
      state = JSON.parse(stored);
    } catch {} // damaged text
    const fits = state && state.study === study.study && (wanted === null || state.rater === wanted);
    if (fits && Array.isArray(state.answers) && study.sessions[state.rater - 1]) return state;
    const rater = wanted ?? 1 + Math.floor(random() * total);
    const hex = () => Math.floor(random() * 2 ** 32).toString(16).padStart(8, "0");
    return { study: study.study, rater, person: hex() + hex(), position: 0, answers: [] };
  },

  session(study, state) {
    return study.sessions[state.rater - 1];
  },

  // The pair to answer now, or null at the end.
  current(study, state) {
    const session = StudyLogic.session(study, state);
    if (state.position >= session.length) return null;
    const [index, swapped] = session[state.position];
    const pair = study.pairs[index];
    const [left, right] = swapped ? [...pair.clips].reverse() : pair.clips;
    return { pair: pair.id, prompt: pair.prompt, left, right, choices: StudyLogic.choices(state), total: session.length };
  },

  choices(state) {
    return state.answers[state.position]?.choices ?? {};
  },

  open(study, state) {
    const choices = StudyLogic.choices(state);
    return study.questions.filter((question) => !(question in choices));
  },

  // Answer a question of the current pair with "left" or "right".
  choose(study, state, question, side) {
    const now = StudyLogic.current(study, state);
    if (!now || !study.questions.includes(question) || !["left", "right"].includes(side)) return state;
    const answers = [...state.answers];
    const before = answers[state.position] ?? { pair: now.pair, left: now.left, right: now.right, seconds: 0 };
    answers[state.position] = { ...before, choices: { ...now.choices, [question]: side } };
    return { ...state, answers };
  },

  // Go to the next pair, if all questions are answered. `seconds` were spent on this pair since it was shown.
  next(study, state, seconds) {
    if (!StudyLogic.current(study, state) || StudyLogic.open(study, state).length) return state;
    const answers = [...state.answers];
    const answer = answers[state.position];
    answers[state.position] = { ...answer, seconds: Math.round(10 * (answer.seconds + seconds)) / 10 };
    return { ...state, answers, position: state.position + 1 };
  },

  back(state) {
    return { ...state, position: Math.max(0, state.position - 1) };
  },

  // The file to save. It has complete pairs only.
  answersFile(study, state, language) {
    const answers = state.answers.filter((answer) => answer && study.questions.every((name) => name in answer.choices));
    const { rater, person } = state;
    const finished = answers.length === StudyLogic.session(study, state).length;
    const content = { format: "landscape-video study answers 1", study: study.study, rater, person, language, finished, answers };
    return { name: `answers-${study.study}-${rater}-${person.slice(0, 6)}.json`, text: JSON.stringify(content, null, 1) + "\n" };
  },
};
