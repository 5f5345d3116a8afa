// Numbers and times as text. What is not known has its own words: it is never 0, and never good.

export const NOT_KNOWN = "not known";

export function number(value) {
  return value === null || value === undefined ? NOT_KNOWN : Math.round(value).toLocaleString("en-US");
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

export function bytes(value) {
  if (value === null || value === undefined) return NOT_KNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let left = value;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${left >= 100 || at === 0 ? Math.round(left) : left.toFixed(1)} ${units[at]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NOT_KNOWN;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

// How long ago, by the clock of the operator.
export function age(time, now, never = "never") {
  return time ? `${duration((Date.parse(now) - Date.parse(time)) / 1000)} ago` : never;
}

const TWO = (value) => String(value).padStart(2, "0");

// A time in the time zone of the browser: 2026-11-29 14:05.
export function clock(time) {
  if (!time) return NOT_KNOWN;
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return NOT_KNOWN;
  return `${at.getFullYear()}-${TWO(at.getMonth() + 1)}-${TWO(at.getDate())} ${TWO(at.getHours())}:${TWO(at.getMinutes())}`;
}

// A text of at most so many characters: the end of a name tells tables apart, so the middle is left out.
export function shortened(text, most) {
  const characters = Array.from(text);
  if (characters.length <= most) return text;
  const end = Math.ceil((most - 1) / 2);
  return `${characters.slice(0, most - 1 - end).join("")}…${characters.slice(-end).join("")}`;
}
