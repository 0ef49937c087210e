// Looks after the models: often while one is loading, the panel is open or nothing answers, else now and then.

const OFTEN_MS = 2000;
const SELDOM_MS = 15_000;

export class ModelWatch {
  #timer = null;
  #looking = false;

  /**
   * on: {models(list), key(message) when one is wanted, trouble(failure, or null once there is none),
   * often(): whether somebody looks at the panel}
   */
  constructor(endpoint, on) {
    this.endpoint = endpoint;
    this.on = on;
  }

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.look();
    });
    this.look();
  }

  async look() {
    if (this.#looking) return;
    this.#looking = true;
    clearTimeout(this.#timer);
    let pause = OFTEN_MS;
    try {
      const models = await this.endpoint.models();
      this.on.models(models);
      this.on.trouble(null);
      if (models.length && models.every(({ ready }) => ready) && !this.on.often()) pause = SELDOM_MS;
    } catch (failure) {
      if (failure.status === 401) {
        this.on.trouble(null);
        this.on.key(failure.message);
        pause = null;
      } else {
        this.on.trouble(failure);
      }
    } finally {
      this.#looking = false;
    }
    if (pause !== null) this.#timer = setTimeout(() => this.#lookIfSeen(pause), pause);
  }

  #lookIfSeen(pause) {
    if (document.hidden) this.#timer = setTimeout(() => this.#lookIfSeen(pause), pause);
    else this.look();
  }
}
