import { type Field, MiB } from './field.js'

/** 2^27 words do not fit a V8 array of numbers. */
export const fastBitSetFits = (field: Field): boolean => field.size.bytes <= 64 * MiB

/** It has a WebAssembly memory of its own, where dense bits need all their bytes, three times over. */
export const roaringFits = (field: Field): boolean => field.size.bytes <= 64 * MiB

/** forEach() hands out bits as i32. */
export const bitsFitInt32 = (field: Field): boolean => field.size.bytes * 8 <= 2 ** 31
