import { type Summary, summarise } from './statistics.js'

/** One who does the work. Nothing but `run` is timed. */
export interface Contender {
  name: string
  /** Puts things as they must be before each `run`; with it a batch is one run. */
  prepare?(): void
  run(): unknown
  /** The answer, as text that all contenders of a case must agree on. Runs the work itself. */
  answer(): string
  /** Gives back memory that no garbage collector sees. */
  dispose?(): void
}

export interface RoundOptions {
  /** At most so many, and at least 3. */
  rounds: number
  /** No new round once so much time has gone by. */
  budgetMs: number
  /** A batch takes at least so long, so that the clock's grain and the cold first run don't show. */
  batchMs: number
}

/** Nanoseconds, as a number: the difference of two is exact for a hundred days. */
const now = (): number => Number(process.hrtime.bigint())

/**
 * Times contenders in turn, round by round, so that whatever disturbs the machine disturbs them alike. Each gets
 * a batch of runs a round, and its time is the batch's mean.
 *
 * What counts is the minimum over the rounds: the work is the same each time, so all that is above it is
 * somebody else's.
 *
 * @returns nanoseconds a run, by name
 * @throws Error when the contenders' answers differ
 */
export function timeInTurn(contenders: readonly Contender[], options: RoundOptions): Map<string, Summary> {
  agree(contenders)
  const entries = contenders.map(contender => ({
    contender,
    batch: batchSize(contender, options.batchMs),
    times: [] as number[],
  }))
  const end = now() + options.budgetMs * 1e6
  for (let round = 0; round < options.rounds && (round < 3 || now() < end); round++) {
    for (const { contender, batch, times } of entries) times.push(timeBatch(contender, batch))
  }
  return new Map(entries.map(({ contender, times }) => [contender.name, summarise(times)]))
}

/** @throws Error naming who differs */
export function agree(contenders: readonly Contender[]): void {
  const [first, ...others] = contenders
  if (first === undefined) throw new RangeError('no contenders')
  const expected = first.answer()
  for (const other of others) {
    const answer = other.answer()
    if (answer !== expected) {
      throw new Error(`${other.name} says ${answer}, but ${first.name} says ${expected}`)
    }
  }
}

/** Warms up, until the optimising compiler has had its time, and finds how many runs make a batch. */
function batchSize(contender: Contender, batchMs: number): number {
  let fastest = Number.POSITIVE_INFINITY
  const end = now() + 3 * batchMs * 1e6
  for (let i = 0; i < 2 || (i < 200 && now() < end); i++) fastest = Math.min(fastest, timeBatch(contender, 1))
  return contender.prepare ? 1 : Math.max(1, Math.ceil((batchMs * 1e6) / Math.max(1, fastest)))
}

function timeBatch(contender: Contender, batch: number): number {
  contender.prepare?.()
  const start = now()
  for (let i = 0; i < batch; i++) contender.run()
  return (now() - start) / batch
}
