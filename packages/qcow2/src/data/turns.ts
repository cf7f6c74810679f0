/** Between two turns of the event loop. */
const TURN_MS = 50
/** An entry of a table takes 30 to 800 ns, by what it says: the clock is looked at after so many. */
const CLOCK_ENTRIES = 2 ** 16

/**
 * Gives the event loop its turn: tables that are in a cache are awaited without one, and so no signal, nor anything else
 * of the program, would come in between the entries of a huge map.
 */
export class Turns {
  #entries = 0
  #last = performance.now()

  /** So many entries more have been looked at. */
  async after(entries: number): Promise<void> {
    this.#entries += entries
    if (this.#entries < CLOCK_ENTRIES) return
    this.#entries = 0
    if (performance.now() - this.#last < TURN_MS) return
    await new Promise(resolve => setTimeout(resolve))
    this.#last = performance.now()
  }
}
