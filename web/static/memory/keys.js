// What the keys do on the map.

// keyOf answers {cell}, {zoom}, {pan}, or null for a key that is not the map's.
export function keyOf(event, cursor, columns, count) {
  if (event.altKey || event.metaKey) return null;
  const to = (cell) => ({ cell: Math.max(0, Math.min(count - 1, cell)) });
  const from = cursor < 0 ? 0 : cursor, row = Math.floor(from / columns) * columns;
  switch (event.key) {
    case "ArrowRight": return to(cursor < 0 ? 0 : from + 1);
    case "ArrowLeft": return to(from - 1);
    case "ArrowDown": return to(from + columns < count ? from + columns : from);
    case "ArrowUp": return to(from >= columns ? from - columns : from);
    case "Home": return to(event.ctrlKey ? 0 : row);
    case "End": return to(event.ctrlKey ? count - 1 : row + columns - 1);
    case "PageDown": return to(from + 8 * columns < count ? from + 8 * columns : from);
    case "PageUp": return to(from >= 8 * columns ? from - 8 * columns : from);
    case "Enter": case "+": case "=": return { zoom: 1 };
    case "Escape": case "-": return { zoom: -1 };
    case "[": return { pan: -0.5 };
    case "]": return { pan: 0.5 };
  }
  return null;
}
