"""Every knob: per command, for the loss, for `ringrl data`, in shared sections; and how configurations are loaded."""
