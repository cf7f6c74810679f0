// Guest and host offsets are both numbers of bytes; giving one where the other belongs must not compile.

declare const host: unique symbol
declare const guest: unique symbol

/** Bytes from the start of the image file. */
export type HostOffset = number & { readonly [host]: true }
/** Bytes from the start of the guest's disk. */
export type GuestOffset = number & { readonly [guest]: true }

export function hostOffset(bytes: number): HostOffset {
  return bytes as HostOffset
}

export function guestOffset(bytes: number): GuestOffset {
  return bytes as GuestOffset
}
