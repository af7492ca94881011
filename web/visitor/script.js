"use strict";
// Comfort only: every page is complete without this. A tap is sent by fetch, so that an answer that
// is lost on the way can be asked for again, always with the attempt of that tap; a page that waits
// looks again without being loaded anew.
(() => {
  const RESENT_FOR = 20000; // whoever tapped longer ago may have left: it is only asked then
  const TAP_AGAIN_AFTER = 1500; // a second tap was meant for the page before
  const NO_ANSWER_AFTER = 12000;
  const find = (selector) => document.querySelector(selector);
  const pause = (length) => new Promise((done) => setTimeout(done, length));
  const say = (words) => { if (note.textContent !== words) note.textContent = words; };
  const note = find("#note");
  let words = find("#page").textContent;
  let sending = false;
  let timer;

  // Returns the page that the site answers with, or null when nothing came that is one of its pages.
  async function ask(address, body) {
    const abort = new AbortController();
    const late = setTimeout(() => abort.abort(), NO_ANSWER_AFTER);
    const how = body ? { method: "POST", body, keepalive: true } : { cache: "no-store" };
    try {
      const response = await fetch(address, { ...how, signal: abort.signal });
      const answer = await response.text();
      return new DOMParser().parseFromString(answer, "text/html").getElementById("page");
    } catch {
      return null;
    } finally {
      clearTimeout(late);
    }
  }

  function show(page, isNews = page.dataset.code !== find("#page").dataset.code) {
    words = page.textContent;
    find("#page").replaceWith(page);
    if (isNews) {
      find("h1").focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    lookIn(page.dataset.again);
  }

  async function look() {
    clearTimeout(timer);
    if (sending || !location.search) return;
    const page = await ask(location.href);
    if (sending) return;
    say(page || !find("#page").dataset.again ? "" : "No connection. Trying again…");
    if (page && page.textContent !== words) show(page);
    else lookIn(page ? page.dataset.again : find("#page").dataset.again && 3);
  }

  // Looks again when it is time, and shows the time until then where the page has a place for it.
  function lookIn(seconds) {
    clearTimeout(timer);
    if (!seconds) return;
    const count = find("#count");
    const due = Date.now() + seconds * 1000;
    const tick = () => {
      const left = Math.ceil((due - Date.now()) / 1000);
      if (left <= 0) { look(); return; }
      if (count) { count.hidden = false; count.textContent = spell(left); }
      timer = setTimeout(tick, Math.min(1000, due - Date.now()));
    };
    tick();
  }

  function spell(seconds) {
    const two = (number) => String(Math.floor(number)).padStart(2, "0");
    const days = Math.floor(seconds / 86400);
    if (days) return `in ${days} ${days > 1 ? "days" : "day"}, ${Math.floor(seconds / 3600 % 24)} h`;
    const hours = Math.floor(seconds / 3600);
    const rest = `${two(seconds / 60 % 60)}:${two(seconds % 60)}`;
    return `in ${hours ? `${hours}:${rest}` : rest.replace(/^0/, "")}`;
  }

  async function send(form) {
    sending = true;
    clearTimeout(timer);
    const tapped = Date.now();
    const action = form.action;
    const attempt = form.elements.attempt.value;
    const body = new URLSearchParams(new FormData(form));
    const address = `${action}?${body}`;
    // from here on, whoever reloads or restores the page asks what became of this tap
    history.replaceState(null, "", address);
    form.classList.add("sending");
    form.querySelector("button").setAttribute("aria-disabled", "true");
    say("One moment…");
    const slow = setTimeout(() => say("Still waiting for an answer…"), 4000);
    let page = null;
    for (let wait = 500; !page; wait = Math.min(wait * 2, 4000)) {
      page = await (Date.now() - tapped < RESENT_FOR ? ask(action, body) : ask(address));
      if (!page) {
        clearTimeout(slow);
        say("No connection. Asking again what became of it…");
        await pause(wait);
      }
    }
    clearTimeout(slow);
    sending = false;
    show(page, true);
    say("");
    if (page.dataset.code === "ready") {
      page.querySelector("[name=attempt]").value = attempt;
      say("It did not get through, so nothing was done. Please tap again.");
    }
    for (const button of page.querySelectorAll("button")) {
      button.disabled = true;
      setTimeout(() => { button.disabled = false; }, TAP_AGAIN_AFTER);
    }
  }

  addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "post") {
      event.preventDefault();
      if (!sending) send(form);
      return;
    }
    const field = form.elements.token; // the whole link, or the code with spaces from a message
    const link = /token=([A-Za-z0-9]+)/.exec(field.value);
    field.value = link ? link[1] : field.value.replace(/\s/g, "");
  });
  addEventListener("pageshow", (event) => { if (event.persisted) look(); });
  addEventListener("online", () => look());
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  if (find("#page").dataset.again && location.search) {
    lookIn(find("#page").dataset.again);
    // ends the Refresh header's timer, which is for browsers without this script
    addEventListener("load", () => setTimeout(stop, 0));
  }
})();
