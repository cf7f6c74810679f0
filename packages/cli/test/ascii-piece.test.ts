import { Random } from '@tidemark/testkit'
import { expect, it } from 'vitest'
import { AsciiPiece } from '../src/render/ascii-piece.js'

const written = (add: (piece: AsciiPiece) => void): string => {
  const piece = new AsciiPiece()
  add(piece)
  return Buffer.from(piece.take()).toString('latin1')
}

it('numbers are written as String does it', () => {
  const random = new Random('digits')
  const edges = Array.from({ length: 16 }, (_, i) => 10 ** i).flatMap(power => [power - 1, power, power + 1])
  const powers = Array.from({ length: 54 }, (_, i) => 2 ** i).flatMap(power => [power - 1, power])
  const draws = Array.from({ length: 2000 }, () => random.int(0, 2 ** random.int(1, 53) - 1))
  for (const number of [...edges, ...powers.filter(Number.isSafeInteger), ...draws]) {
    expect(written(piece => piece.number(number))).toBe(String(number))
    expect(written(piece => piece.number(number, 14))).toBe(String(number).padStart(14))
  }
})

it('a taken piece leaves an empty one', () => {
  const piece = new AsciiPiece()
  piece.text('abc')
  expect(piece.take()).toHaveLength(3)
  expect(piece.take()).toHaveLength(0)
  while (!piece.full) piece.text('0123456789')
  expect(piece.take().length).toBeGreaterThanOrEqual(256 * 1024)
  expect(piece.full).toBe(false)
})
