/**
 * Tries again what makes or changes an encrypted image with QEMU: it times its key derivation by the processor
 * time of a few milliseconds, and gives up, before it wrote a key, where that reads as none at all.
 *
 * @example
 * await derivingKeys(() => run('qemu-img', ['amend', …]))
 */
export async function derivingKeys<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries === 20 || !/Unable to get accurate CPU usage/.test(String(error))) throw error
    }
  }
}
