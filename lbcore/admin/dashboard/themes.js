// The switch between light, dark, and what the system says.

import { icon, put, say, turn } from "./dom.js";

const ORDER = ["system", "light", "dark"];
const ICONS = { system: "system", light: "sun", dark: "moon" };

export function themeSwitch(button) {
  const root = document.documentElement;
  const drawn = icon("system"), words = document.createElement("span");
  words.className = "wide-only";
  button.append(drawn, words);
  const draw = () => {
    const now = root.dataset.theme || "system";
    turn(drawn, ICONS[now]);
    say(words, now === "system" ? "System" : now === "light" ? "Light" : "Dark");
    put(button, "aria-label", `Theme: ${now}`);
  };
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(root.dataset.theme || "system") + 1) % ORDER.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    localStorage.setItem("lbcore-theme", next);
    draw();
  });
  draw();
}
