"""Rules for products on a conveyor belt, with one module for each rule."""
