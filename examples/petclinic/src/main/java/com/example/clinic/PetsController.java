package com.example.clinic;

import java.util.stream.Collectors;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

@RestController
public class PetsController {
    private final Pets pets;

    public PetsController(Pets pets) {
        this.pets = pets;
    }

    @GetMapping("/")
    public String greet() {
        return pets.findAllByOrderByName().stream()
                .map(pet -> pet.getName() + " of " + pet.getOwner())
                .collect(Collectors.joining(", ", "Greetings from ", "!"));
    }
}
