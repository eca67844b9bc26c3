package com.example.clinic;

import java.util.List;
import org.springframework.data.jpa.repository.JpaRepository;

public interface Pets extends JpaRepository<Pet, Integer> {
    List<Pet> findAllByOrderByName();
}
