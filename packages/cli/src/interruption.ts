/**
 * Signals that ask the process to end. It ends at once, unless a command that writes has asked to be told: then that
 * one ends, with what it writes to as it was or as it was to be.
 */
export class Interruption {
  readonly #exit: (status: number) => void
  readonly #controller = new AbortController()
  #held = false
  #status: number | undefined

  /** @param exit ends the process */
  constructor(exit: (status: number) => void) {
    this.#exit = exit
  }

  /** A signal has come. @param status what the process is to exit with: 128 and the signal's number */
  come(status: number): void {
    this.#status ??= status
    if (this.#held) this.#controller.abort()
    else this.#exit(status)
  }

  /** From now on a signal aborts this one instead, and the command is waited for. */
  hold(): AbortSignal {
    this.#held = true
    return this.#controller.signal
  }

  /** Undefined where no signal came. */
  get status(): number | undefined {
    return this.#status
  }
}
