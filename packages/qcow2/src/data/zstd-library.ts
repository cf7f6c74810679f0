import type { ZstdFrame } from './zstd-frames.js'

/** libzstd in WebAssembly, given one whole frame and room for no more than is left. */
export async function decodeWithZstddec(frame: ZstdFrame, left: number): Promise<Uint8Array> {
  const { ZSTDDecoder } = await import('zstddec')
  const decoder = new ZSTDDecoder()
  // The module is instantiated once, whatever the number of decoders.
  await decoder.init()
  return decoder.decode(frame.bytes, left)
}
