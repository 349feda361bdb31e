"""Statistics of reader studies: pure functions of tables of readings, whose readers and cases are both a sample."""
