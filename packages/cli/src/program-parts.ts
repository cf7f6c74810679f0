import type { Command } from 'commander'
import type { Output } from './output.js'

/** What program.ts gives to its parts that are files of their own. */
export interface ProgramParts {
  /** Adds the options that every command has. */
  readonly common: (command: Command) => Command
  /** Keeps a command's exit status. */
  readonly ends: <A extends unknown[]>(
    action: (...args: A) => Promise<number>,
  ) => (...args: A) => Promise<void>
  readonly output: Output
}
