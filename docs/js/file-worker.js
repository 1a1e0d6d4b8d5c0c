// A page that was opened from a folder may not start workers. This Worker runs the script in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      const source = new URL(url, document.baseURI).href;
      this.frame.srcdoc = `<!doctype html><title>search</title><script src="${source}"></` + "script>";
      this.ready = new Promise((resolve) => this.frame.addEventListener("load", resolve, { once: true }));
      const attach = () => {
        document.body.append(this.frame);
        // what the script sends with postMessage goes to the page, not to its own frame
        this.frame.contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      };
      document.body ? attach() : addEventListener("DOMContentLoaded", attach);
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
