// Everything that asks a person: native <dialog>, which keeps the focus inside and gives it back.

import { h, icon, say, show } from "./dom.js";

let toasts = null;

// Where what is said in passing is seen and read out: a modal dialog dims and silences all else.
function placeToasts() {
  toasts ??= document.getElementById("toasts");
  const place = [...document.querySelectorAll("dialog[open]")].at(-1) || document.body;
  if (toasts.parentNode !== place) place.append(toasts);
}

// Says in passing that something is done, or was not (`bad`). Read out by screen readers.
export function toast(words, bad = false) {
  placeToasts();
  const el = h("p", {}, icon(bad ? "down" : "up"), h("span", { text: words }));
  toasts.append(el);
  setTimeout(() => el.remove(), bad ? 15000 : 6000);
}

// What the API said no with, as an element for the dialog that asked.
function complaint(error) {
  const problems = error.problems || [];
  const [first, ...more] = error.message.split("\n"); // more: what an application has said
  return [
    h("p", { class: "what" }, icon("down"), h("b", { text: first })),
    more.length > 0 && h("pre", { text: more.join("\n"), tabindex: 0, "aria-label": "Its output" }),
    error.hint && h("p", { text: error.hint }),
    problems.length > 0 && h("ul", {}, problems.map((problem) => h("li", {},
      problem.key && h("code", { text: problem.key }), problem.key && ": ", problem.message || "",
      problem.hint && h("span", { class: "hint", text: ` ${problem.hint}` })))),
  ].filter(Boolean);
}

let serial = 0;

// A modal dialog with a heading. The element is removed when it is closed.
export function open({ title, children, wide = false, onClose, closable = true }) {
  serial += 1;
  const heading = h("h2", { id: `dialog-${serial}`, text: title });
  const shut = h("button", { type: "button", class: "quiet close", "aria-label": "Close",
    on: { click: () => dialog.close() } }, icon("close"));
  const dialog = h("dialog", { class: wide ? "wide" : null, "aria-labelledby": heading.id },
    h("header", {}, heading, closable && shut), children);
  dialog.addEventListener("cancel", (event) => { if (!closable) event.preventDefault(); });
  dialog.addEventListener("close", () => {
    if (dialog.contains(toasts)) placeToasts();
    dialog.remove();
    onClose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Asks before something is done. `says`: what will happen, a string for each paragraph or an
// element. `fields`: elements of a form. `run(form)` does it and returns what to say afterwards, or a
// function that says it; what it throws is shown and the dialog stays, or in passing if somebody has
// closed it meanwhile. `danger`: the focus begins on "Cancel".
export function confirm({ title, says, fields = [], verb, danger = false, run, api }) {
  const trouble = h("div", { class: "trouble", role: "alert", hidden: true });
  const yes = h("button", { type: "submit", class: danger ? "danger" : "primary", text: verb });
  const no = h("button", { type: "button", text: "Cancel", on: { click: () => dialog.close() } });
  const form = h("form", { novalidate: true },
    says.filter(Boolean).map((part) => (typeof part === "string" ? h("p", { text: part }) : part)),
    fields, trouble, h("footer", {}, no, yes));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (yes.getAttribute("aria-busy")) return;
    yes.setAttribute("aria-busy", "true");
    show(trouble, false);
    try {
      const done = await run(form);
      dialog.close();
      if (typeof done === "function") done();
      else toast(done);
    } catch (error) {
      if (!dialog.isConnected) toast(`${title} ${error.message.split("\n", 1)[0]}`, true);
      trouble.replaceChildren(...complaint(error));
      show(trouble, true);
      if (error.status === 412) say(yes, `${verb} all the same`);
    } finally {
      yes.removeAttribute("aria-busy");
    }
  });
  const dialog = open({ title, children: form });
  const first = form.querySelector("input, select") || (danger ? no : yes);
  first.focus();
  if (first.select) first.select();
  return dialog;
}

// Something to read: each of `notes` is a line, as words and what they are about.
export function notice(title, notes) {
  const close = h("button", { type: "button", class: "primary", text: "Close",
    on: { click: () => dialog.close() } });
  const dialog = open({ title, wide: true, children: [
    h("ul", { class: "notes" }, notes.map(([words, what]) => h("li", {}, words, h("code", { text: what })))),
    h("footer", {}, close)] });
  close.focus();
}

// A labelled field of a form.
export function field(label, input, hint) {
  serial += 1;
  input.id = `field-${serial}`;
  const note = hint && h("small", { id: `${input.id}-hint`, class: "hint", text: hint });
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: input.id, text: label }), input, note);
}

// Resolves to the token that a person enters.
export function askToken(wrong) {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false",
      required: true });
    const form = h("form", {},
      wrong && h("p", { class: "trouble", role: "alert" }, icon("down"),
        h("b", { text: "That token was not accepted." })),
      h("p", { text: "This address answers only to those who know its token: the first line of "
        + "the file that token_file in [admin] names. It is kept until this tab is closed." }),
      field("Token", input),
      h("footer", {}, h("button", { type: "submit", class: "primary", text: "Continue" })));
    let entered = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      entered = input.value.trim();
      dialog.close();
    });
    const dialog = open({ title: "A token, please", children: form, closable: false,
      // Browsers let a second Escape close anything: without a token there is nothing to see.
      onClose: () => resolve(entered ?? askToken(wrong)) });
    input.focus();
  });
}
