/** What `tidemark` exits with; the same for every command. */
export const exitStatus = {
  ok: 0,
  error: 1,
  foundWrong: 2,
  leaksOnly: 3,
  cannotTell: 4,
  someDisksFull: 10,
  allDisksFull: 11,
  unsupported: 63,
  usage: 64,
  interrupted: 130,
  /** 128 + SIGPIPE: whoever read the output has gone. */
  brokenPipe: 141,
} as const

export type ExitStatus = (typeof exitStatus)[keyof typeof exitStatus]
