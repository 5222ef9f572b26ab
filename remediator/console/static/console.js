/* The console's own script: times in the reader's zone, time that is left, whether the page still follows, and what was
   open stays open. Without it every page works and says its times in UTC. */
"use strict";

(function () {
  const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "2-digit" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" });
  const utcDay = new Intl.DateTimeFormat("en-CA", { timeZone: "UTC", year: "numeric", month: "2-digit", day: "2-digit" });

  function local(time) {
    if (time.dataset.local) return;
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) return;
    time.dataset.local = "yes";
    const utc = time.textContent.trim();
    const today = new Date();
    const sameDay = utcDay.format(at) === utcDay.format(today) && day.format(at) === day.format(today);
    time.title = utc;
    time.replaceChildren((sameDay ? "" : day.format(at) + " ") + clock.format(at));
    if (at.getTimezoneOffset() === 0) return;
    const small = document.createElement("small");
    small.textContent = sameDay ? utc.slice(11) : utc;
    time.append(" ", small);
  }

  function left(seconds) {
    if (seconds <= 0) return "over";
    const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const words = [];
    let rest = Math.floor(seconds);
    for (const [size, unit] of parts) {
      const count = Math.floor(rest / size);
      rest -= count * size;
      if (count || words.length) words.push(count + " " + unit);
      if (words.length === 2) break;
    }
    return "(" + (words.join(" ") || "0 s") + " left)";
  }

  function tick() {
    for (const each of document.querySelectorAll("[data-until]")) {
      const said = left(Number(each.dataset.until) - Date.now() / 1000);
      if (each.textContent !== said) each.textContent = said;
    }
  }

  function all() {
    for (const each of document.querySelectorAll("time[datetime]")) local(each);
    tick();
  }

  const link = document.getElementById("link");
  // Live is only what is told of changes and could make itself anew: an old page must not look like a new one.
  const follows = { told: false, renewed: true };
  let lost = null;
  function state(changes) {
    Object.assign(follows, changes);
    if (!link) return;
    if (follows.told && follows.renewed) {
      lost = null;
      link.className = "link on";
      link.textContent = "● Live";
    } else if (!lost) {
      lost = new Date();
      link.className = "link off";
      link.textContent = "✗ Not connected since " + clock.format(lost) + ": this may be old";
    }
  }

  // A list that moves must not put another button under the finger: for a moment after a change no answer is sent.
  const CALM = 800;
  const ONCE = 3000;  // milliseconds in which the same form is not sent again: a double click is one answer
  let places = "";
  let calmAt = 0;
  const sent = new WeakMap();
  function forms() {
    return Array.from(document.querySelectorAll("#live form"), (each) =>
      each.getAttribute("action") + "@" + Math.round(each.getBoundingClientRect().top)).join();
  }
  function held(form) {
    if (Date.now() < calmAt) return "Not sent: the page has just changed. Look again, then press once more.";
    if (Date.now() < (sent.get(form) || 0) + ONCE) return "Sent already: wait for the answer.";
    sent.set(form, Date.now());
    return "";
  }
  document.addEventListener("submit", (event) => {
    const why = event.target.closest("#live") ? held(event.target) : "";
    if (!why) return;
    event.preventDefault();
    event.stopPropagation();
    let note = event.target.querySelector(".held");
    if (!note) {
      note = document.createElement("p");
      note.className = "held";
      note.setAttribute("role", "alert");
      event.target.append(note);
    }
    note.textContent = why;
  }, true);

  let open = [];
  document.addEventListener("htmx:sseOpen", () => state({ told: true }));
  document.addEventListener("htmx:sseError", (event) => {
    state({ told: false });
    // Refused, and not unreachable: the page itself is asked, and leads to the log-in when the session is over.
    if (event.detail.source && event.detail.source.readyState === EventSource.CLOSED) window.htmx.trigger("#live", "sse:change");
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.target.id === "live") state({ renewed: event.detail.successful === true });
  });
  document.addEventListener("htmx:beforeSwap", () => {
    places = forms();
    open = Array.from(document.querySelectorAll("details[open][id]"), (each) => each.id);
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of open) {
      const each = document.getElementById(id);
      if (each) each.open = true;
    }
    all();
    if (forms() !== places) calmAt = Date.now() + CALM;
  });
  all();
  window.setInterval(tick, 1000);
})();
