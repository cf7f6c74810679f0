import { Qcow2Error } from '../errors.js'

/**
 * Loads a library, or what it needs. That it is not there is not the image's fault, and must not be told as if it were.
 *
 * @throws {Qcow2Error} `codec-unavailable`
 */
export async function loaded<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    const message = `the library ${name}, which reading this image needs, cannot be loaded: ${(cause as Error).message}`
    throw new Qcow2Error('codec-unavailable', message, { library: name }, { cause })
  }
}
