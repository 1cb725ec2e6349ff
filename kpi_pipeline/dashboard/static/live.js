// Live pages: takes in the server's events, marks numbers that changed, and keeps ages up to date.
(() => {
  "use strict";
  const AGES_EVERY = 10_000, SAY_EVERY = 10_000, HIDDEN_FOR = 60_000, MARKED_FOR = 2_500;
  const SLOWEST_RETRY = 30_000, LOST_AFTER = 3_000;

  // What `duration` and `age` do on the server: 12 s, 3 min, 10 h 5 min, 2 d 3 h.
  const ageOf = (seconds) => {
    const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
    if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
    if (days) return `${days} d ${hours % 24} h`;
    return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
  };

  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  // The server's clock: the browser's own may be wrong.
  let clock = null;
  const refreshAges = () => {
    if (clock === null) return;
    const now = clock.at + performance.now() - clock.read;
    for (const it of document.querySelectorAll("time[data-age]")) {
      write(it, ageOf((now - Date.parse(it.dateTime)) / 1000));
    }
  };

  // What a screen reader is told: how many numbers changed, and whose, now and then.
  const said = document.createElement("p");
  said.className = "unseen";
  said.setAttribute("aria-live", "polite");
  const notice = document.createElement("p");
  notice.className = "live-notice";
  notice.setAttribute("role", "status");
  const changed = { numbers: 0, names: new Set(), timer: 0 };
  const say = () => {
    const names = [...changed.names], more = names.length - 3;
    const whose = names.slice(0, 3).join(", ") + (more > 0 ? ` and ${more} more` : "");
    write(said, `${changed.numbers} ${changed.numbers === 1 ? "number" : "numbers"} changed${whose && `: ${whose}`}.`);
    changed.numbers = changed.timer = 0;
    changed.names.clear();
  };
  const mark = (element) => {
    element.classList.remove("changed");
    void element.offsetWidth; // Begins the animation again.
    element.classList.add("changed");
    changed.numbers += 1;
    const name = element.closest("[id]")?.querySelector(".name")?.textContent.trim();
    if (name && changed.names.size < 100) changed.names.add(name);
    changed.timer ||= setTimeout(say, SAY_EVERY);
    // Without motion there is no animation that ends.
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      setTimeout(() => element.classList.remove("changed"), MARKED_FOR);
    }
  };
  document.addEventListener("animationend", (event) => event.target.classList.remove("changed"));

  // Makes an element what another is, and leaves what is equal: a focus, a selection, an open list.
  const become = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return undefined;
    }
    if (old.isEqualNode(fresh)) return undefined;
    const isNew = fresh.dataset.c !== undefined && old.textContent !== fresh.textContent;
    // What the reader and this script did stays.
    if (old.nodeName === "DETAILS" && old.open) fresh.open = true;
    if (old.classList.contains("changed")) fresh.classList.add("changed");
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const parts = [...fresh.childNodes], rows = [...fresh.children];
    if (rows.length && rows.every((it) => it.id)) {
      // Rows may come, go and change places: each is known by its id.
      const known = new Map([...old.children].map((it) => [it.id, it]));
      const placed = rows.map((it) => {
        const row = known.get(it.id);
        if (row) become(row, it);
        return row ?? it;
      });
      if (placed.length !== old.children.length || placed.some((it, place) => it !== old.children[place])) old.replaceChildren(...placed);
    } else if (parts.length === old.childNodes.length) {
      parts.forEach((it, place) => become(old.childNodes[place], it));
    } else {
      // A part came or went, such as a sign beside a number that is wrong.
      const texts = new Map([...old.querySelectorAll("[data-c]")].map((it) => [it.dataset.c, it.textContent]));
      old.replaceChildren(...parts);
      for (const it of old.querySelectorAll("[data-c]")) {
        if (texts.has(it.dataset.c) && texts.get(it.dataset.c) !== it.textContent) mark(it);
      }
    }
    if (isNew) mark(old);
    return undefined;
  };
  const takeIn = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    // Rows are in a template of their own: HTML has none outside of a table.
    const parts = [...template.content.children].flatMap((it) => (it.content ? [...it.content.children] : [it]));
    for (const fresh of parts) {
      const old = document.getElementById(fresh.id);
      if (!old) continue;
      become(old, fresh);
      window.htmx?.process(old);
    }
    refreshAges();
  };

  const page = document.querySelector("[data-live]");
  if (!page) return;
  document.body.append(said, notice);
  let source = null, version = "", retry = 0, waiting = 0, lost = 0, hidden = 0;
  const connect = () => {
    clearTimeout(waiting);
    source?.close();
    const address = new URL(page.dataset.live, location.href);
    if (version) address.searchParams.set("since", version);
    source = new EventSource(address);
    source.onopen = () => {
      clearTimeout(lost);
      lost = retry = 0;
      write(notice, "");
    };
    source.onerror = () => {
      lost ||= setTimeout(() => write(notice, "Connection lost. The numbers stay as they are until it is back."), LOST_AFTER);
      // The browser tries again after an error of the network, and not after an answer.
      if (source.readyState === EventSource.CLOSED) ask(address);
    };
    source.addEventListener("change", (event) => {
      version = event.lastEventId;
      takeIn(event.data);
    });
    source.addEventListener("time", (event) => {
      clock = { at: Date.parse(event.data), read: performance.now() };
      refreshAges();
    });
    source.addEventListener("requests", () => window.htmx?.trigger(document.body, "requests"));
    source.addEventListener("away", () => write(notice, "The numbers can't be read at the moment."));
    source.addEventListener("back", () => write(notice, ""));
    // Not all pages at once.
    source.addEventListener("reload", () => setTimeout(() => location.reload(), 3_000 * Math.random()));
  };
  const ask = async (address) => {
    const asked = new AbortController();
    const status = await fetch(address, { signal: asked.signal }).then((it) => it.status, () => 0);
    asked.abort();
    if (status === 401) location.reload(); // To the login.
    retry = Math.min(SLOWEST_RETRY, 2 * retry || 2_000);
    waiting = setTimeout(connect, retry);
  };
  // A browser has six connections to a server: a tab that nobody sees needs none of them.
  const rest = () => {
    clearTimeout(waiting);
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(rest, HIDDEN_FOR);
    else if (!source) connect();
  });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && connect());
  setInterval(refreshAges, AGES_EVERY);
  connect();
})();
