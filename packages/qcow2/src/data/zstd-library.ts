import { loaded } from './load.js'
import type { ZstdFrame } from './zstd-frames.js'

/** libzstd in WebAssembly, given one whole frame and room for no more than is left. */
export async function decodeWithZstddec(frame: ZstdFrame, left: number): Promise<Uint8Array> {
  const decoder = await loaded('zstddec', async () => {
    const { ZSTDDecoder } = await import('zstddec')
    const made = new ZSTDDecoder()
    // The module is instantiated once, whatever the number of decoders.
    await made.init()
    return made
  })
  return decoder.decode(frame.bytes, left)
}
