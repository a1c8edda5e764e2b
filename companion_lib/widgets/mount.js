// Gives every static widget on the page that has none yet a small model, and draws it.

class StaticModel {
  constructor(state) {
    this.state = state;
    this.listeners = new Map();
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    if (Object.is(this.state[name], value)) return;
    this.state[name] = value;
    this.emit(`change:${name}`);
    this.emit("change");
  }
  save_changes() {}
  on(event, listener) {
    if (!this.listeners.has(event)) this.listeners.set(event, new Set());
    this.listeners.get(event).add(listener);
  }
  off(event, listener) {
    this.listeners.get(event)?.delete(listener);
  }
  emit(event) {
    for (const listener of this.listeners.get(event) ?? []) listener();
  }
}

for (const host of document.querySelectorAll("[data-companion-widget]:not([data-mounted])")) {
  host.setAttribute("data-mounted", "");
  const text = (name) => host.querySelector(`script.companion-${name}`).textContent;
  const url = URL.createObjectURL(new Blob([text("module")], { type: "text/javascript" }));
  const el = host.appendChild(document.createElement("div"));
  import(url)
    .then((module) => {
      module.default.render({ model: new StaticModel(JSON.parse(text("state"))), el });
    })
    .catch((error) => {
      console.error(error);
      el.textContent = "This figure could not be started. Reload the page, or try another browser.";
    })
    .finally(() => URL.revokeObjectURL(url));
}
