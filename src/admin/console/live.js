// Keeps a page of held calls as it is on the server. It asks for the same page again whenever a record of a hold is
// written, and exchanges what has another version; everything else stays as it is, with the reader's place, what is
// unfolded and what is being typed. It makes no markup of its own, and without it the page is reloaded by hand.
"use strict";
(() => {
  const region = document.querySelector("[data-live]");
  if (!region) return;
  const state = document.getElementById("live");
  const offset = Date.parse(region.dataset.now) - Date.now();
  const SETTLE_MS = 100, SYNC_MS = 15000, POLL_MS = 3000, RETRY_MS = 30000;

  // As `span` in page.rs says it.
  const span = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60), thin = "\u202f";
    if (s < 60) return `${s}${thin}s`;
    if (s < 600) return `${m}${thin}min ${s % 60}${thin}s`;
    if (s < 3600) return `${m}${thin}min`;
    if (s < 172800) return `${h}${thin}h ${m % 60}${thin}min`;
    return `${Math.floor(h / 24)}${thin}d`;
  };
  const tick = () => {
    const now = Date.now() + offset;
    for (const time of document.querySelectorAll("time.left, time.age")) {
      const at = Date.parse(time.dateTime), left = time.classList.contains("left");
      const words = span(left ? at - now : now - at);
      if (time.textContent !== words) time.textContent = words;
      if (left) time.classList.toggle("soon", at - now < 300000);
    }
  };

  const keyed = (list) => new Map([...list.children].filter((one) => one.dataset.key).map((one) => [one.dataset.key, one]));
  const focusIn = (one) => one.contains(document.activeElement) && document.activeElement;

  // What had the focus keeps it, or the part of the page that it was in has it.
  const exchange = (old, fresh) => {
    const focused = focusIn(old), link = focused && focused.getAttribute("href");
    old.replaceWith(fresh);
    if (!focused) return;
    const same = (focused.id && document.getElementById(focused.id)) ||
      (link && [...fresh.querySelectorAll("[href]")].find((one) => one.getAttribute("href") === link));
    if (!same) fresh.tabIndex = -1;
    (same || fresh).focus({ preventScroll: true });
  };
  const merge = (list, wanted) => {
    const here = keyed(list), there = keyed(wanted);
    for (const [key, old] of here) {
      if (there.has(key)) continue;
      // Whoever is about to open it is told instead of finding another row there.
      if (focusIn(old) || (old.matches(":hover") && old.querySelector("a, button"))) {
        old.classList.add("gone");
        if (list.dataset.gone && old.lastElementChild) old.lastElementChild.textContent = list.dataset.gone;
      } else old.remove();
    }
    let before = null;
    for (const [key, one] of [...there].reverse()) {
      let old = here.get(key);
      if (!old || old.dataset.version !== one.dataset.version) {
        const fresh = document.importNode(one, true);
        if (old) exchange(old, fresh);
        else {
          fresh.classList.add("new");
          list.insertBefore(fresh, before);
        }
        old = fresh;
      }
      before = old;
    }
  };
  const show = (page) => {
    for (const list of page.querySelectorAll("[data-list]")) {
      const here = document.querySelector(`[data-list="${list.dataset.list}"]`);
      if (here) merge(here, list);
    }
    for (const one of page.querySelectorAll("[data-said]")) {
      const here = document.getElementById(one.id);
      if (here && here.textContent !== one.textContent) here.textContent = one.textContent;
    }
    if ("titled" in region.dataset && page.title) document.title = page.title;
    tick();
  };

  let asking = false, again = false, streaming = false, reached = new Date();
  const say = () => {
    const words = reached ? (streaming ? "live" : "asked for every few seconds") :
      "The gateway does not answer: this is how it was before.";
    if (state.textContent !== words) state.textContent = words;
    state.classList.toggle("problem", !reached);
  };
  const sync = () => {
    if (asking) { again = true; return; }
    asking = true;
    const request = new XMLHttpRequest();
    request.open("GET", region.dataset.live);
    request.responseType = "document";
    request.timeout = 20000;
    request.onloadend = () => {
      asking = false;
      reached = request.status === 200 && !!request.response;
      if (reached) show(request.response);
      say();
      if (again) { again = false; sync(); }
    };
    request.send();
  };

  let settling = 0;
  const soon = () => { clearTimeout(settling); settling = setTimeout(sync, SETTLE_MS); };
  const follow = () => {
    const events = new EventSource("/v1/events");
    events.onopen = () => { streaming = true; soon(); };
    events.onerror = () => {
      streaming = false;
      say();
      if (events.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS);
    };
    events.addEventListener("dropped", soon);
    events.addEventListener("record", (event) => {
      if (["held", "vote", "released", "breakglass"].includes(JSON.parse(event.data).type)) soon();
    });
  };
  setInterval(tick, 1000);
  setInterval(sync, SYNC_MS);
  setInterval(() => { if (!streaming) sync(); }, POLL_MS);
  follow();
})();
