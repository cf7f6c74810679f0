// Mistakes of the caller, told before a kernel sees them: wasm truncates fractions, takes NaN for 0 and wraps
// around 2^32, so that a wrong number would become another one without a word.
import { wasmConstant } from './module.js'

/** @throws RangeError for what is not a whole number from `least` to `most` */
export function wholeNumber(name: string, value: number, least = 0, most = Number.MAX_SAFE_INTEGER): void {
  if (!(Number.isSafeInteger(value) && value >= least && value <= most)) {
    throw new RangeError(`${name} is ${String(value)}, not a whole number from ${least} to ${most}`)
  }
}

/** @throws RangeError for a cluster size that no qcow2 image has, or a file length that is none */
export function imageGeometry(geometry: { clusterBits: number; fileBytes: number }): void {
  wholeNumber(
    'clusterBits',
    geometry.clusterBits,
    wasmConstant('MIN_CLUSTER_BITS'),
    wasmConstant('MAX_CLUSTER_BITS'),
  )
  wholeNumber('fileBytes', geometry.fileBytes)
}
