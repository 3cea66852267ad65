"""Every knob: of the commands, of the method (`loss`), of `ringrl data` (`data`), shared `sections`; and `load`."""
