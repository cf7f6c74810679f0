// A host offset is a number of bytes like any other; giving a guest's offset where it belongs must not compile.

declare const host: unique symbol

/** Bytes from the start of the image file. */
export type HostOffset = number & { readonly [host]: true }

export function hostOffset(bytes: number): HostOffset {
  return bytes as HostOffset
}
