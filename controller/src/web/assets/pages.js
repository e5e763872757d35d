"use strict";

// A file fills the field of the form; without this script one pastes its text.
for (const input of document.querySelectorAll("input[data-fills]")) {
  input.parentElement.hidden = false;
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (file) document.getElementById(input.dataset.fills).value = await file.text();
  });
}

// Pieces of the page as they change.
const live = document.body.dataset.live;
if (live) {
  const line = document.getElementById("line");
  let source = null;
  let over = false;

  const say = (text, link) => {
    if (line.textContent === text) return;
    line.hidden = !text;
    line.textContent = text;
    if (link) {
      const a = document.createElement("a");
      a.href = link;
      a.textContent = "Sign in again";
      line.append(" ", a);
    }
  };

  // What one reaches by keyboard is known again by what it does: where it leads, or what its form sends. Where another button takes
  // the place of one, Enter must not press that.
  const reachable = "a, summary, button, input:not([type=hidden]), textarea, [tabindex]";
  const deed = (one) => {
    const form = one.closest("form");
    const sent = form ? [...form.querySelectorAll("input[type=hidden]:not([name=proof])")] : [];
    const own = one.id || one.getAttribute("href") || one.getAttribute("aria-label");
    const label = one.localName === "button" ? one.textContent : "";
    return JSON.stringify([
      one.localName, form?.getAttribute("action"), sent.map((each) => [each.name, each.value]), own ?? label,
    ]);
  };

  // What the reader has opened, pushed aside, typed or reached by keyboard stays so.
  const replace = (piece, markup) => {
    const all = (what) => [...piece.querySelectorAll(what)];
    const alike = (known) => all(reachable).filter((one) => deed(one) === known);
    const kept = (one) => {
      const known = deed(one);
      return { known, at: alike(known).indexOf(one), value: one.value, from: one.selectionStart, to: one.selectionEnd };
    };
    const active = document.activeElement;
    const reached = piece.contains(active) && active.matches(reachable) ? kept(active) : null;
    const typed = all("input:not([type=hidden]), textarea").filter((one) => one.value !== one.defaultValue).map(kept);
    const open = all("details").map((one) => one.open);
    const pushed = all(".scroll, pre").map((one) => one.scrollLeft);
    piece.innerHTML = markup;
    all("details").forEach((one, at) => { one.open = open[at] ?? one.open; });
    all(".scroll, pre").forEach((one, at) => { one.scrollLeft = pushed[at] ?? 0; });
    for (const each of typed) {
      const field = alike(each.known)[each.at];
      if (field) field.value = each.value;
    }
    const again = reached && alike(reached.known)[reached.at];
    again?.focus({ preventScroll: true });
    if (again && typeof reached.from === "number") again.setSelectionRange(reached.from, reached.to);
  };

  const place = (name) => {
    const known = document.getElementById("piece-" + name);
    if (known) return known;
    const piece = document.createElement("div");
    piece.id = "piece-" + name;
    const all = document.querySelectorAll("[id^=piece-]");
    all[all.length - 1].after(piece);
    return piece;
  };

  const again = async () => {
    if (over || document.hidden) return;
    try {
      // As a page: who is signed out is led away then, which is no error.
      const asked = await fetch(location.href, { redirect: "manual", cache: "no-store", headers: { Accept: "text/html" } });
      if (asked.ok) return follow();
      if (asked.type === "opaqueredirect" || asked.status === 401) {
        over = true;
        return say("You are signed out.", "/sign-in?to=" + encodeURIComponent(location.pathname + location.search));
      }
    } catch { /* it does not answer yet */ }
    setTimeout(again, 2000);
  };

  const follow = () => {
    source?.close();
    source = new EventSource(live);
    source.addEventListener("open", () => say(""));
    source.addEventListener("piece", (event) => {
      const { piece, markup } = JSON.parse(event.data);
      replace(place(piece), markup);
      document.body.dataset.seen = String(Date.now());
    });
    source.addEventListener("end", () => {
      over = true;
      source.close();
      document.body.dataset.ended = "yes";
    });
    source.addEventListener("error", () => {
      if (over) return;
      say("The controller does not answer. What is shown may be out of date; trying again.");
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 1000);
    });
  };

  // A page in the background asks for nothing: a browser has few connections to one server.
  document.addEventListener("visibilitychange", () => {
    if (over) return;
    if (document.hidden) source?.close();
    else follow();
  });
  if (!document.hidden) follow();
}
